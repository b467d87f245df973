"""The dbt projects of tests."""


def dbt_project(rest: str, *, name: str = "shop") -> str:
    """Return `dbt_project.yml`: what every project has to say, and the rest."""
    return f"""\
name: {name}
version: "1.0.0"
profile: cascade
macro-paths: ["macros", "{{{{ env_var('CASCADE_DBT_MACROS', 'macros') }}}}"]
flags: {{ send_anonymous_usage_stats: false }}
{rest}"""
