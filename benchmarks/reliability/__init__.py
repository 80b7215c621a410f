"""Break runs, files and command lines on purpose; nothing may be lost, wrong or unexplained.

`campaign` is the loop; a kind of trouble is a file of its own (`kills`, `disks`, `starts`,
`sweeps`, `signals`, `damage`, `words`, `text`) with one function that carries out one `Case`.
"""
