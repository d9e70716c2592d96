"""Labels that people agreed on land as rows of an Iceberg table. Entry point: ``handler.handler``."""
