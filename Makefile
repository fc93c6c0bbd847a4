.PHONY: docs test

# The documentation, API reference and notebooks included: docs/site/index.html.
docs:
	pip install -q ".[docs]"
	python docs/make_site.py

test:
	pytest -n auto --dist loadfile -m "not slow"
