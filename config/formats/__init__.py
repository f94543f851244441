"""How each language writes times where Django does; the pages of ours use the filter `when`."""
