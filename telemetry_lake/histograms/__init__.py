"""What a histogram is: ranges of buckets, definitions, how it is stored, how many are added up."""
