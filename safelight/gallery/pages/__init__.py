"""The gallery's pages: each module gives `routes`, and may give `body_limits` for larger bodies."""
