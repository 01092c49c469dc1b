"""Runs instances in Kubernetes, one Deployment each (docs/kubernetes.md)."""
