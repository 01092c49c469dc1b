"""Calls that outlive their connection: detached calls, their recordings and their routes."""
