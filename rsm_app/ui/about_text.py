"""What the about page says in words; its tables come from the engine."""

from __future__ import annotations

DELIMITERS = [{"left": "$$", "right": "$$", "display": True}, {"left": "$", "right": "$", "display": False}]
_NEW = 'target="_blank" rel="noopener"'

WHAT = """<h2>What this app does</h2>
<p>A text-to-image model starts from noise and cleans it in small steps. At each step its network says in
which direction the picture should change; that direction is called the <i>score</i>.</p>
<p>A <i>reward</i> is any number that says how good a picture is: how much of the caption it shows, how
colourful it is, how small a file it makes. Fine-tuning towards a reward changes the directions a little, so
that finished pictures score higher, and pulls the model back where it would leave what it has learned.</p>
<p><b>Reward score matching</b> says by how much. At every noisy picture there is one best change: the
direction in which the reward that can still be expected rises. Nobody knows it exactly, so each method
estimates it. Zeroth-order methods compare the rewards of several pictures and work with any reward;
first-order methods read the reward's gradient and need one that can be differentiated. Then the network is
trained to give its old direction plus that estimate. All methods here are this one loss with other
settings, which is why they can be compared fairly.</p>
<p>Only a small adapter (LoRA) is trained; the base model stays as it was. The adapter that a run saves
works in plain diffusers, without this app. On the <a href="lab">Lab page</a> you can see how good each
estimate is.</p>"""

LOSS = r"""## The one loss

At a noisy picture $x_t$, with $o_\theta$ the output of the network in training, $o_{\text{anchor}}$ that of
the base model or of the policy that drew the picture, and $G$ the guidance in units of the output:

$$\begin{aligned}L={}&W_1\,\lVert o_\theta-(o_{\text{anchor}}+\gamma\,G)\rVert^2\\
&+W_2\,\lVert o_\theta-o_{\text{old}}\rVert^2\end{aligned}$$

- $G$ says where to go: it is the estimate of the value's gradient.
- $\gamma$ says how far, and $W_1$ how much each noise level counts.
- $W_2$, or a clip in its place, is the trust region: it keeps one update small.
- A further term, $\beta$ times the distance to the base model, keeps the whole training near it.
"""

METHODS_INTRO = """<h3>Methods</h3><p>Each row is one setting of the loss. “Extended” marks a model family
that the method's paper does not treat.</p>"""
REWARDS_INTRO = """<h3>Rewards</h3><p>All are maximised. Several can be mixed with weights, for example
<code>shapes:1,tiny_clip:0.2</code>. A differentiable reward lets first-order methods read its gradient; a
black box only gives its value. Some need weights, which are downloaded when they are first used, or a
server; the train page offers those that can run here.</p>"""
MODELS_INTRO = """<h3>Base models</h3><p>The tiny models were trained by this project on drawn scenes and
need neither a GPU nor a network. They pass through the same code as large ones.</p>"""

NUMBERS = """<h3>What the numbers mean, and what they do not</h3>
<ul>
<li><b>Before and after</b> are drawn with the same held-out prompts and the same seeds, by the plain
diffusers pipeline, and scored by the same code. The prompts are never trained on.</li>
<li><b>±</b> is a standard error. Pictures of one prompt resemble each other, so it counts prompts and not
pictures. <b>z</b> is the gain divided by it: below 2 the gain may be chance, and of forty useless runs
about one will pass 2 by luck.</li>
<li><b>Win rate</b> is the share of pairs that got better. A mean can rise through a few pictures only; this
tells.</li>
<li><b>Other rewards, diversity and drift</b> are what was <i>not</i> optimised. If the reward rises while
they fall, it has probably been fooled: a reward measures something near to quality, never quality
itself.</li>
<li><b>KL</b> and <b>drift</b> say how far the model has moved. A gain that costs much drift may not hold
for other prompts.</li>
<li><b>Training reward</b> is measured on noisy training pictures, so it may lie below the reward after
training.</li>
<li><b>The limits:</b> tiny models draw coloured shapes, so their gains say little about large models;
seconds depend on the machine; and a comparison of two methods needs several seeds, equal budgets and
settings tuned alike.</li>
</ul>"""

MORE = f"""<h3>Read on</h3>
<ul>
<li><a href="https://arxiv.org/abs/2604.17415" {_NEW}>Reward Score Matching: Unifying Reward-based
Fine-tuning for Flow and Diffusion Models</a>, Lee, Chang, Kim and Ye, arXiv 2604.17415: the theory.</li>
<li><a href="https://huggingface.co/docs/diffusers" {_NEW}>Diffusers</a>: the library whose pipelines are
trained, and which loads the adapters.</li>
<li>The project's own documents, complete, below.</li>
</ul>"""

OPENING = "Reading the document."
MISSING = "This document is not part of this installation; it is in the `docs` folder of the source."
