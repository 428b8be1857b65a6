"""Predict with a trained run: `python src/predict.py run=best input=digit.png`."""

import sys

from omegaconf import DictConfig

from fairsweep.cli.entry import entry_point
from fairsweep.runs import inputs


@entry_point("predict", short={"data": "dataset"})  # conf/data/ is a group of train.py's
def main(cfg: DictConfig) -> None:
    """Predict, print labels and probabilities or numbers, and write a picture of images."""
    inputs.check(cfg)
    wanted = inputs.find_input(str(cfg.input))
    output = inputs.picture_file(cfg.output)
    if note := inputs.note(str(cfg.input)):
        print(note, file=sys.stderr)
    with inputs.find_run(str(cfg.run), cfg.tracking.uri, cfg.record.dir, cfg.dataset) as folder:
        from fairsweep.runs import pictures, prediction

        results = prediction.classify(folder, wanted)
        print(prediction.table(results))
        picture = pictures.predictions(results)
        if picture is not None:
            pictures.save(picture, output)
        print()
        for note in prediction.notes(results):
            print(f"note     {note}")
        print(f"run      {folder.path}\ntrained  {inputs.described(folder)}")
        if picture is not None:
            print(f"picture  {output}")


if __name__ == "__main__":
    main()
