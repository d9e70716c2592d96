"""An Iceberg table of the Data Catalog: made once, given new columns, never pointed elsewhere."""
