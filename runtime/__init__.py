"""What any of our processes needs: settings, logs, metrics, timers, tasks, lifecycle."""
