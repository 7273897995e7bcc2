"""The engine: reward score matching for flow and diffusion models.

Complete without the app, importable, and runnable from a shell with `python -m trainers`. It leaves
out everything a browser needs: no module here imports gradio or `rsm_app`.

Data flows through `loop`: rollout → rewards → guidance → loss → step → log → save.
"""
