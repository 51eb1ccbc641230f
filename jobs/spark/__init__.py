"""What the Spark jobs share: command lines, date ranges, checks and notes of what was made of which date."""
