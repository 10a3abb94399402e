"""Files of boxes, as ImageNet has them."""

from pathlib import Path

XML = """
<annotation>
  <filename>{name}</filename>
  <size><width>{width}</width><height>{height}</height><depth>3</depth></size>
  {objects}
</annotation>
"""
OBJECT = """
<object><name>n01751748</name><bndbox>
<xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax>
</bndbox></object>
"""


def annotate(folder: Path, name: str, size: tuple[int, int], *boxes: tuple[int, int, int, int]) -> None:
    """Write the file of an image of a size (width, height)."""
    objects = "".join(OBJECT.format(*box) for box in boxes)
    folder.mkdir(exist_ok=True)
    text = XML.format(name=name, width=size[0], height=size[1], objects=objects)
    (folder / f"{name}.xml").write_text(text)
