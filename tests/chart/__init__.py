"""The Helm chart, rendered by Helm and checked: ``make test-chart``."""
