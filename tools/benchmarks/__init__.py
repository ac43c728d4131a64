"""One module an area; each yields its rows: `rows(quick: bool) -> Iterator[Row]`."""
