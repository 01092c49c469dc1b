"""The function queue behind one interface."""
