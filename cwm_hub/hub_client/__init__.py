"""The Hugging Face client as the library and data preparation use it.

    errors   whatever client, network and disk raise, in one sentence of one class
    names    what people write for a repository
    commit   a publish is one commit
    cards    card templates; text that is inert; a card that keeps what people wrote into it
    secrets  what must not be published

Nothing of `huggingface_hub` is imported before it is used: command lines answer `--help` without it.
"""
