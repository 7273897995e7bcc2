"""The pages. The only package that imports gradio; it reads run folders and never imports torch."""
