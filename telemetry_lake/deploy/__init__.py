"""What other machines need to run this code: rights for each role, and the package for Amazon EMR."""
