"""What follows from what a ping says: its dimensions, its client, where it came from."""
