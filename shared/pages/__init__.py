"""Pages that need no network: `blocks`, drawn by `charts` and `overlays`, written by `html_page` and `pdf_page`."""
