"""Value-guidance estimators: from a batch of prompts to rows that the one loss can be taken on."""
