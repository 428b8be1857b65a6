"""Classify images with a trained run: `python src/predict.py run=best input=digit.png`."""

import sys

from omegaconf import DictConfig

from fairsweep.cli.entry import entry_point
from fairsweep.runs import inputs


@entry_point("predict", short={"data": "dataset"})  # conf/data/ is a group of train.py's
def main(cfg: DictConfig) -> None:
    """Classify images, print labels and probabilities, and write a picture."""
    inputs.check(cfg)
    wanted = inputs.find_input(str(cfg.input))
    output = inputs.picture_file(cfg.output)
    if note := inputs.note(str(cfg.input)):
        print(note, file=sys.stderr)
    with inputs.find_run(str(cfg.run), cfg.tracking.uri, cfg.record.dir, cfg.dataset) as folder:
        from fairsweep.runs import pictures, prediction

        results = prediction.classify(folder, wanted)
        print(prediction.table(results))
        pictures.save(pictures.predictions(results), output)
        print()
        for note in prediction.notes(results):
            print(f"note     {note}")
        print(f"run      {folder.path}\ntrained  {inputs.described(folder)}\npicture  {output}")


if __name__ == "__main__":
    main()
