"""The same settings as those of the other tests. Run with `make bench-test`; `make test` leaves these out."""

import tests.conftest  # noqa: F401
