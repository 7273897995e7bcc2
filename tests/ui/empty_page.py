"""An empty Gradio page: what the app's first paint is measured against."""

import gradio as gr

if __name__ == "__main__":
    with gr.Blocks(analytics_enabled=False) as demo:
        pass
    demo.launch(server_name="127.0.0.1", quiet=True)
