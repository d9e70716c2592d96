"""Files of the lake's zones: which are there, which can be read, what they hold. No Spark in here."""
