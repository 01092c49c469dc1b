"""The Kubernetes backend against a real kube-apiserver and etcd (``make test-kubernetes``)."""
