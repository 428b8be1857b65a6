"""Classify images with a trained run: `python src/predict.py run=best input=digit.png`."""

from omegaconf import DictConfig

from fairsweep import inputs
from fairsweep.cli import entry_point


@entry_point("predict", short={"data": "dataset"})  # conf/data/ is a group of train.py's
def main(cfg: DictConfig) -> None:
    """Find what is asked for, classify it, tell label and probability, write a picture."""
    inputs.check(cfg)
    wanted = inputs.find_input(str(cfg.input))
    output = inputs.picture_file(cfg.output)
    with inputs.find_run(str(cfg.run), cfg.tracking.uri, cfg.record.dir, cfg.dataset) as folder:
        from fairsweep import pictures, prediction

        results = prediction.classify(folder, wanted)
        print(prediction.table(results))
        pictures.save(pictures.predictions(results), output)
        print(f"\nrun      {folder.path}\ntrained  {inputs.described(folder)}\npicture  {output}")


if __name__ == "__main__":
    main()
