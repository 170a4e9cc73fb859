"""The command `safelight`: harden the process, run the verb, turn any error into a sentence."""

__all__ = ["main"]


def main() -> None:
    """Run the command line and end the process with the status that CONTRACT.md names."""
    from safelight.console import prepare_output
    from safelight.hardening import forbid_core_dumps
    from safelight.offline import watch_network

    forbid_core_dumps()
    prepare_output()
    watch = watch_network()
    try:
        from safelight.cli import app

        app(prog_name="safelight", obj=watch)
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the last border before the shell
        from safelight.cli.ahead import leave

        leave(_report(error))


def _report(error: BaseException) -> int:
    from safelight.console import note
    from safelight.exits import ExitStatus, exit_status, place_of

    status = exit_status(error)
    if status is ExitStatus.INTERRUPTED:
        note("safelight: interrupted")
    elif status is ExitStatus.UNEXPECTED:
        note(f"safelight: unexpected {type(error).__name__} in {place_of(error)}")
        note("hint: this is a fault of safelight; that line is all that a report needs")
    else:
        note(f"safelight: {_sentence(error)}")
        if hint := getattr(error, "hint", ""):
            note(f"hint: {hint}")
    return status


def _sentence(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return str(error)


if __name__ == "__main__":
    main()
