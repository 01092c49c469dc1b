"""Shared by both programs: settings, logs, events, metrics, timers, tasks, ids, lifecycle."""
