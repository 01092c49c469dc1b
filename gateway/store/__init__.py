"""Where functions, versions and keys are kept."""
