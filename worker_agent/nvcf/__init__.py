"""The agent under NVIDIA's control plane, gRPC ``nvcf.Worker``, in place of our gateway's API."""
