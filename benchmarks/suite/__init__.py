"""The comparison with other clients: `python -m benchmarks.suite run` measures it, `publish` writes tables and charts.

`cases` and `contenders` are what is measured, `worker` is the process of one contender, `running` asks the workers in
turn, `results` is the file of figures. `markdown`, `charts` and `publishing` make the pages from that file alone.
"""
