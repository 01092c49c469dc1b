"""The backend that runs instances as processes of this machine."""
