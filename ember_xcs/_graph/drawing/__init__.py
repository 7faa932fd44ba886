"""Pictures of graphs: text, Mermaid, Graphviz, SVG and Jupyter."""
