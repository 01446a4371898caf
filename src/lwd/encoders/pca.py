import torch
from sklearn.decomposition import PCA
from safetensors.torch import save_file
class PatchPCA:
    def __init__(self,components): self.components=components
    def fit(self,f):
        p=PCA(self.components,svd_solver="full").fit(f.permute(0,2,3,1).flatten(0,2).double().numpy()); self.mean=torch.tensor(p.mean_); self.axes=torch.tensor(p.components_); self.explained_variance_ratio=p.explained_variance_ratio_; return self
    def encode(self,f): return torch.einsum('nchw,kc->nkhw',f.double()-self.mean[:,None,None],self.axes).float()
    def save(self,path): save_file({"mean":self.mean.contiguous(),"axes":self.axes.contiguous()},path)
