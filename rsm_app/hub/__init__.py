"""Publishing a run on the Hub and bringing one back. No gradio.

What a page needs:

- ``sign_in.find_token(pasted, oauth, local)`` → ``Token``; ``local_token()``; ``account(token)``;
- ``names.suggestions(settings, owner, taken)``, ``names.checked_name(text)``;
- ``bundle.bundle(run_folder, repo, token)`` → ``Bundle``: ``card`` (Markdown), ``files``, ``size``;
- ``target.look(repo, token)`` → ``Target``; ``target.changes(target, bundle)`` → added, changed, …;
  ``target.stamp(target, bundle)`` → what tells this very push from any other;
- ``push.Push(run_folder, repo, token, private, stamp).start()`` works in its own thread, returns at once;
- ``push_status.read_push(run_folder)`` → ``PushStatus``, for polling; ``cancel_push(run_folder)``;
- ``fetching.fetch(source, token, out, owner=…)`` → the new run's folder.

Everything that can go wrong is an ``InputError`` or a ``problems.HubProblem`` (``kind``, ``cause``,
``remedy``), both in sentences for people.
"""
