"""The command `mlops demo`."""

import typer

from mlops_platform.cli.console import OutputFormat, Printer, command, connect


def add_to(app: typer.Typer) -> None:
    """A command of its own, without a noun: it uses all of them."""

    @command(app, "demo", examples=["mlops demo", "mlops demo -o json"])
    def demo(out: Printer) -> None:
        """Do the main job on real measurements: features, training pipeline, registry, A/B test, champion, lineage.

        Needs a running platform ('mlops up') and the extra 'demo'. May be run again: each run adds two versions.
        """
        from mlops_platform.sdk.errors import MissingPackage

        try:
            from mlops_platform.cli.demo.data import patients
            from mlops_platform.cli.demo.story import Story
        except ModuleNotFoundError as error:
            raise MissingPackage(
                f"The demo needs scikit-learn and pyarrow ({error.name} is missing).",
                hint="pip install 'mlops-platform[demo,server]'",
            ) from error
        from rich.console import Console

        from mlops_platform.cli.demo.narrator import Narrator

        is_for_programs = out.output is OutputFormat.JSON or out.quiet
        with connect() as platform:
            # First of all, so that a platform that is not there is said before anything is loaded and shown.
            platform.admin.whoami()
            outcome = Story(platform, patients(), Narrator(Console(stderr=is_for_programs, highlight=False))).run()
        if is_for_programs:
            out.one(outcome.as_fields(), name="champion")
