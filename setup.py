"""What pyproject.toml cannot say: a wheel carries the folders that lie beside the package."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

STARTER = ("workflows/*.yaml", "workflows/*.csv", "configs/*.yaml", "notebooks/*.ipynb")


class BuildWithStarter(build_py):
    """Besides the modules, copy workflows, configs and notebooks into ``bpqp_portfolio/starter``.

    An editable install leaves them where they are, and ``experiments/starter.py`` finds them there.
    """

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib) / "bpqp_portfolio" / "starter"
        shutil.rmtree(target, ignore_errors=True)  # of an earlier build
        for path in (path for pattern in STARTER for path in sorted(Path().glob(pattern))):
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target / path)


setup(cmdclass={"build_py": BuildWithStarter})
