"""What belongs to the two publications alone."""
