"""Pages that need no network: `blocks`, drawn by `charts`, written by `html_page` and `pdf_page`."""
