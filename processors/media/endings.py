# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Endings of media files to look for in folders; they do not matter for opening a file. To find more, add to
these sets before folders are read:

```python
>>> VIDEO_SUFFIXES.add(".xyz")
```
"""


def _endings(names: str) -> set[str]:
    return {f".{name}" for name in names.split()}


VIDEO_SUFFIXES = _endings(
    "3g2 3gp amv asf avi divx dv f4v flv gif h264 hevc ivf m1v m2t m2ts m2v m4v mj2 mjpeg mjpg mk3d mkv mod "
    "mov mp4 mpe mpeg mpg mts mxf nut ogv ogx qt rm rmvb tod trp ts vob webm wmv wtv y4m"
)
SOUND_SUFFIXES = _endings(
    "aac ac3 adts aif aifc aiff amr ape au caf dts eac3 ec3 flac m4a m4b mka mp2 mp3 mpga oga ogg opus ra "
    "snd spx tta voc w64 wav weba wma wv"
)
PICTURE_SUFFIXES = _endings(
    "apng avif avifs blp bmp bw cur dcx dds dib gif icns ico im j2c j2k jfif jp2 jpc jpe jpeg jpf jpg jpx "
    "mpo msp pbm pcd pcx pgm png pnm ppm psd qoi ras rgb rgba sgi tga tif tiff webp xbm xpm"
)
