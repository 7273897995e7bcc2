"""Where the lender finds the request of whoever asks, as in the package of that name."""


def gradio_request_var():
    from gradio.context import LocalContext

    return LocalContext.request
