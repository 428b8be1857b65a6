"""Write a trained run's model to a file for use elsewhere: `python src/export.py run=best format=onnx`."""

from omegaconf import DictConfig

from fairsweep.cli.entry import entry_point
from fairsweep.runs import inputs
from fairsweep.runs.progress import print_rows


@entry_point("export", short={"data": "dataset"})  # conf/data/ is a group of train.py's
def main(cfg: DictConfig) -> None:
    """Export the tested weights, compare the predictions, and print the file with its input and output."""
    inputs.check(cfg, inputs.EXPORT)
    file = inputs.export_file(cfg)
    with inputs.find_run(str(cfg.run), cfg.tracking.uri, cfg.record.dir, cfg.dataset) as folder:
        from rich import get_console

        from fairsweep.runs import export

        exported = export.write(folder, str(cfg.format), file)
        rows = {"run": str(folder.path), "trained": inputs.described(folder), "file": str(exported.file)}
        rows |= {"input": exported.input, "output": exported.output}
        rows |= {"difference": f"at most {exported.difference:.1e} over {exported.compared}"}
        print_rows(get_console(), rows.items())


if __name__ == "__main__":
    main()
