"""What people start: the commands, whose scripts in tools/ are a few lines each."""
