"""Presentation-attack detection: a simulation, uncertified (published detectors err on 20 to 35 % across data sets).

`cues` measures frames and a depth map, `classifier` runs an ONNX model where one is given, `judgement` decides,
`report` counts errors for each attack species as ISO/IEC 30107-3 asks. Payments rest on the signed capture and the
passcode, not on this.
"""
