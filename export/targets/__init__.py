"""Forms of a bundle that are derived for one runtime or device."""
