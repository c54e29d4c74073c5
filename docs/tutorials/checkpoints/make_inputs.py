"""Make six checkpoints and a folder of photographs from what comes with netsim, if you have none at hand."""

from pathlib import Path

import my_nets
import torch
from PIL import Image

from netsim.images import load_images, to_unit

TRAINING_IMAGES, TEST_IMAGES, EPOCHS, BATCH = 3000, 800, 4, 64


def write_photos(split: str, count: int) -> None:
    """Write images as photos/<split>/<class>/<number>.png."""
    images = load_images("fashion-mnist", split)
    for number, (pixels, label) in enumerate(zip(images.read(range(count)), images.labels, strict=False)):
        folder = Path("photos", split, images.classes[label].replace("/", "-"))
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[0]).save(folder / f"{number:04}.png")


def train(name: str, seed: int) -> None:
    """Train one network on the folder, and save its weights as checkpoints/<name>-<seed>.pt."""
    images = load_images("folder:photos", "train", size=28)
    pixels = to_unit(images.read(range(len(images))))
    labels = torch.tensor(images.labels)
    torch.manual_seed(seed)
    model = getattr(my_nets, name)()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=EPOCHS * -(-len(labels) // BATCH))
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(labels)).split(BATCH):
            loss = torch.nn.functional.cross_entropy(model(pixels[rows]), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    Path("checkpoints").mkdir(exist_ok=True)
    torch.save(model.state_dict(), f"checkpoints/{name}-{seed}.pt")


if __name__ == "__main__":
    write_photos("train", TRAINING_IMAGES)
    write_photos("test", TEST_IMAGES)
    for architecture in ("plain", "residual", "wide"):
        for seed in (0, 1):
            train(architecture, seed)
            print(f"checkpoints/{architecture}-{seed}.pt")
