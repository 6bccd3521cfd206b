"""Keys and values in int8: their ranges are measured at the export, their scales are constants."""
