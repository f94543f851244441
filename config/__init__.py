"""The ground floor: settings, database, URLs, and the demo workspace."""
