"""What a worker inherits: what programs and libraries need, and no secret under whatever name."""

import pytest

from rsm_app.jobs.environment import OUTPUT, is_secret, worker_environment

SECRET = [
    *("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "OPENAI_API_KEY", "WANDB_API_KEY", "MY_SECRET", "RSM_TOKEN1"),
    *("OAUTH_CLIENT_SECRET", "DB_PASSWORD", "AWS_ACCESS_KEY_ID", "AWS_PROFILE", "GITHUB_TOKEN", "my_api_key"),
    *("SECRET_KEY", "RSM_JUDGE_KEY", "HF_PAT"),
]
UNKNOWN = [
    *("OPENAI_KEY", "KAGGLE_KEY", "GITHUB_PAT", "PGPASSWORD", "MYSQL_PWD", "HFTOKEN", "TOKEN1"),
    *("DATABASE_URL", "SLACK_WEBHOOK", "KUBECONFIG", "SSH_AUTH_SOCK"),
]
NEEDED = [
    *("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TZ", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "PYTHONPATH"),
    *("HF_HOME", "HF_HUB_OFFLINE", "HF_ENDPOINT", "TOKENIZERS_PARALLELISM", "XDG_CACHE_HOME", "SYSTEM"),
    *("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "TORCHINDUCTOR_CACHE_DIR"),
    *("PYTORCH_CUDA_ALLOC_CONF", "NCCL_DEBUG", "ACCELERATE_USE_CPU", "SPACE_ID", "SPACES_ZERO_GPU"),
    *("RSM_ALLOW_OWN_CODE", "RSM_JUDGE_KEY_VARIABLE", "RSM_ASSETS", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"),
]


@pytest.mark.parametrize("name", SECRET)
def test_names_of_secrets_are_recognised(name):
    assert is_secret(name)
    assert worker_environment({name: "x"}) == OUTPUT


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_is_not_known_to_be_needed_stays_behind(name):
    assert worker_environment({name: "x"}) == OUTPUT


@pytest.mark.parametrize("name", NEEDED)
def test_what_programs_and_libraries_need_passes(name):
    assert not is_secret(name)
    assert worker_environment({name: "1", "HF_TOKEN": "x"}) == {name: "1", **OUTPUT}


def test_the_variable_that_the_owner_names_as_the_judge_s_key_is_a_secret_under_any_name():
    named = {"RSM_JUDGE_KEY_VARIABLE": "RSM_MINE", "RSM_MINE": "k"}
    assert "RSM_MINE" not in worker_environment(named, {"reward": "shapes"})
    assert worker_environment(named, {"reward": "judge"})["RSM_MINE"] == "k"


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "http_proxy", "ALL_PROXY"])
def test_a_proxy_passes_without_its_password_only(name):
    assert name in worker_environment({name: "http://proxy.example:3128", "no_proxy": "localhost"})
    assert name not in worker_environment({name: "http://me:pass@proxy.example:3128"})


def test_what_the_app_s_owner_lists_passes():
    source = {"RSM_WORKER_ENV": "MY_LICENCE, MY_KEY", "MY_LICENCE": "1", "MY_KEY": "2", "OTHER": "3"}
    given = worker_environment(source)
    assert given["MY_LICENCE"] == "1" and given["MY_KEY"] == "2" and "OTHER" not in given
